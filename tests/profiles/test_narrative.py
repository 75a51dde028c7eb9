"""The narrative allow-list: what runs, is fetched or is not XHTML is refused."""

import time

import pytest

from profiles.narrative import is_safe

X = 'xmlns="http://www.w3.org/1999/xhtml"'

SAFE = [
    f"<div {X}>Blood pressure 131/84 mmHg</div>",
    f'<div xml:lang="en" {X} lang="en">Two &lt; three &amp; a&#160;space&nbsp;</div>',
    f"<div {X}><p><b>LDL</b> 96<br/>mg/dL</p><!-- a note --><table><tr><td colspan='2'>x</td></tr></table></div>",
    f'<div {X}><a href="https://example.org/a?b=1&amp;c=2">more</a> <a href="#x">here</a></div>',
    f'<div {X}><img src="data:image/png;base64,AAAA" alt="x"/></div>',
    f'<div {X} style="color: red">x</div>',
]
HARMFUL = [
    f"<div {X}><script>alert(1)</script></div>",
    f'<div {X}><p onclick="a()">x</p></div>',
    f'<div {X}><img src="https://example.org/pixel.gif"/>x</div>',
    f'<div {X}><img src="//example.org/pixel.gif"/>x</div>',
    f'<div {X}><a href="javascript:alert(1)">x</a></div>',
    f'<div {X}><a href="java&#115;cript:alert(1)">x</a></div>',
    f'<div {X}><a href=" JaVaScRiPt:alert(1)">x</a></div>',
    f'<div {X}><a href="data:text/html,x">x</a></div>',
    f'<div {X} style="background: url(https://example.org/a)">x</div>',
    f'<div {X} style="width: expression(alert(1))">x</div>',
    f'<div {X} style="background: u&#114;l(//x)">x</div>',
    f"<div {X}><iframe src='x'/>x</div>",
    f"<div {X}><form><input/></form>x</div>",
    f"<div {X}><style>p {{}}</style>x</div>",
    f"<div {X}><svg onload='x'/>x</div>",
    f'<!DOCTYPE div [<!ENTITY a "b">]><div {X}>&a;</div>',
    f"<?xml version='1.0'?><div {X}>x</div>",
    f"<div {X}><![CDATA[<script>]]></div>",
    f'<div {X}><h:script xmlns:h="http://www.w3.org/1999/xhtml">x</h:script></div>',
]
MALFORMED = [
    "",
    "plain",
    "<div>no namespace</div>",
    f"<div {X}></div>",
    f"<div {X}>   </div>",
    f"<div {X}><!-- only a note --></div>",
    f"<p {X}>not a div</p>",
    f"<div {X}>x</div><div {X}>y</div>",
    f"<div {X}>x</div> tail",
    f"<div {X}><p>x</div></p>",
    f"<div {X}>x",
    f"<div {X}>a & b</div>",
    f"<div {X} class='a' class='b'>x</div>",
    f"<div {X}>" + "<b>" * 500 + "x" + "</b>" * 500 + "</div>",
    None,
    7,
]


@pytest.mark.parametrize("div", SAFE)
def test_formatting_passes(div: str) -> None:
    """Formatting, tables, plain links and embedded images are what a narrative is for."""
    assert is_safe(div)


@pytest.mark.parametrize("div", HARMFUL)
def test_what_runs_or_fetches_is_refused(div: str) -> None:
    """Scripts, events, forms, frames, outside images, disguised schemes and document types do not pass."""
    assert not is_safe(div)


@pytest.mark.parametrize("div", MALFORMED, ids=lambda div: str(div)[:40])
def test_what_is_no_xhtml_div_is_refused(div: object) -> None:
    """One well-formed div of the XHTML namespace with some content, and nothing else."""
    assert not is_safe(div)


def test_the_check_is_linear() -> None:
    """A megabyte of openings is answered at once."""
    assert not is_safe(f"<div {X}>" + "<p a='" * 150_000)
    assert not is_safe(f"<div {X}>" + "&" * 500_000)
    assert is_safe(f"<div {X}>" + "<br/>x " * 100_000 + "</div>")


@pytest.mark.parametrize("tail", ["<b>x</b></div>", "</div", "<script/></div>"])
def test_a_long_text_is_read_once(tail: str) -> None:
    """A narrative of a hundred kilobytes takes milliseconds, whatever stands at its end."""
    started = time.process_time()
    is_safe(f"<div {X}>" + "a " * 50_000 + tail)
    assert time.process_time() - started < 1


def test_an_attribute_stands_once() -> None:
    """Two languages of one name are not well-formed, in the short way neither."""
    assert is_safe(f'<div {X} xml:lang="en" lang="en"><p>x</p><p>y</p></div>')
    assert not is_safe(f'<div {X} lang="en" lang="en"><p>x</p></div>')
