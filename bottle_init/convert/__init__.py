"""`bottle-init convert`: bundle files from the files of other tools. No other command imports any of this."""
