"""The page of a run: one HTML file with the map, the clusters and what is known about them without labels.

`assemble_page` makes it out of the content of `content.build_content` and the files page.html, style.css and *.js.
"""

from perspective.page.assembly import assemble_page, hash_parts
from perspective.page.content import Description, build_content
from perspective.page.verdict import Figure, Verdict

__all__ = ["Description", "Figure", "Verdict", "assemble_page", "build_content", "hash_parts"]
