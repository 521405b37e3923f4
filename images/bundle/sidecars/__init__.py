"""What the bundle's four daemons are made of, besides the programs that others wrote.

The modules that decide (`policy`, `hosts`, `dlp`, `questions`, `render`) import the standard library alone, so that
they can be tested anywhere; the MCP SDK is imported by the server that needs it. The proxies are in
images/bundle/proxy.
"""
