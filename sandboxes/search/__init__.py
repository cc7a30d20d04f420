"""The search sandbox: local corpora, the live web behind the same tools, and a fetcher that attacks nobody.

documents   reading a corpus: JSONL, folders of HTML, Markdown and text, gzip
passages    documents cut into passages with spans
ledger      what of a corpus is in its index already
builder     the one writer of an index
ranking     which passages fit a query best
corpus      the readers of an index
places      which corpora there are, and generated ones made once
outside     text from outside: cleaned, escaped, labelled
shown       results and pages as parts of an observation
addresses   which URLs and addresses may be reached
fetch       one URL over a connection to an address that was checked
pages       HTML, text and PDF as pages of text
engines     live search engines, normalised
store       what live calls gave, kept for replay
web         engines and fetcher behind the store, with budgets
sandbox     the tools
"""
