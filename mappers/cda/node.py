"""The element of a document: lxml's own, whose tree is read as it is; no second one is made."""

from lxml import etree

Node = etree._Element
