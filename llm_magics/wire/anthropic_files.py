"""
Images and documents in the format of Anthropic's Messages API.

Source: https://platform.claude.com/docs/en/build-with-claude/pdf-support, and the types of the
official client 2.14 (2026-11).
"""

from __future__ import annotations

from typing import Any

from llm_magics.attachments import Image
from llm_magics.documents import PDF, TEXT_TYPES, Attachment, Document, reject


def encode_image(image: Image) -> dict[str, Any]:
    """Return the block of an image."""
    if image.url:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    source = {"type": "base64", "media_type": image.media_type, "data": image.base64}
    return {"type": "image", "source": source}


def encode_document(document: Attachment) -> dict[str, Any]:
    """
    Return the block of a PDF or a text.

    Raises:
        AttachmentError: the API has no blocks for its format.
    """
    if not isinstance(document, Document) or document.media_type not in {PDF, *TEXT_TYPES}:
        raise reject(document, "Anthropic")
    if document.url:
        source = {"type": "url", "url": document.url}
    elif document.media_type == PDF:
        source = {"type": "base64", "media_type": PDF, "data": document.base64}
    else:
        source = {"type": "text", "media_type": "text/plain", "data": document.text}
    return {"type": "document", "source": source, "title": document.title}
