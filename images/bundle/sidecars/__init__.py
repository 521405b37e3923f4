"""What the bundle's four daemons are made of, besides the programs that others wrote.

The modules that decide (`policy`, `hosts`, `dlp`, `questions`, `render`) import the standard library alone, so that
they can be tested anywhere; mitmproxy and the MCP SDK are imported by the addons and the server that need them.
"""
