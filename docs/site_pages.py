"""Hook of MkDocs: pages of the site that are files elsewhere in the repository, and links to such files.

README.md is the home page, and the other Markdown files beside it are pages; files that a page links to (examples, schemas,
results) are copied into the site under their own path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.name.lower() for path in sorted(ROOT.glob("*.md"))} | {"README.md": "index.md"}
"""Files at the root of the repository that are pages, and their names in the site."""
CODE = re.compile(r"<code>[^<]*</code>")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
GROUP = re.compile(
    r"(<b><code>(?:<[^>]+>)?\w+),((?:</\w+>)?</code></b>)\s*\(<code>\(?(.*?)\)?</code>\)", re.S
)
"""An entry for several attributes ("similarity, visibility: the trees"), of which all but the first are shown as a type."""
TAG = re.compile(r"<[^>]+>")
LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def relative_to_docs(text: str, folder: Path) -> str:
    """Text of a page in a folder of the repository, with links as they lead from the folder docs/.

    Links to files outside docs/ become links to their copies in the site.
    """

    def rewritten(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if not target.is_relative_to(ROOT):
            return match[0]
        path = target.relative_to(ROOT).as_posix()
        inside = PAGES.get(path) or path.removeprefix("docs/")
        return f"]({inside}{match[2] or ''})"

    return LINK.sub(rewritten, text)


def linked_files(text: str, folder: Path) -> set[str]:
    """Files outside docs/, other than pages, that a text links to; paths in the repository."""
    found = set()
    for match in LINK.finditer(text):
        target = (folder / match[1]).resolve()
        if target.is_file() and target.is_relative_to(ROOT) and not target.is_relative_to(ROOT / "docs"):
            path = target.relative_to(ROOT).as_posix()
            found |= {path} - PAGES.keys()
    return found


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere, and the files that any page links to."""
    from mkdocs.structure.files import File

    linked: set[str] = set()
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        linked |= linked_files(text, ROOT)
        files.append(File.generated(config, page, content=relative_to_docs(text, ROOT)))
    for page in (ROOT / "docs").glob("*.md"):
        linked |= linked_files(page.read_text(encoding="utf-8"), ROOT / "docs")
    for path in sorted(linked):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: object, **_: object) -> str:
    """The page's text, with links to files outside docs/ led to their copies."""
    path = page.file.src_uri  # type: ignore[attr-defined]
    return relative_to_docs(markdown, ROOT / "docs") if "/" not in path else markdown


def on_page_content(html: str, **_: object) -> str:
    """The page with every option in its text, such as --every, marked as one word that no line break splits.

    Attributes that share a description stand together before it.
    """
    html = GROUP.sub(lambda match: f"{match[1]}, {TAG.sub('', match[3])}{match[2]}", html)
    parts = re.split(r"(<pre.*?</pre>)", html, flags=re.S)
    parts[::2] = [
        CODE.sub(lambda match: OPTION.sub(r'<span class="option">\g<0></span>', match[0]), text)
        for text in parts[::2]
    ]
    return "".join(parts)
