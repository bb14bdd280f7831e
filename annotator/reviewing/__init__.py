"""Parts of `annotator review`: the page and its server, and the exchange with Label Studio."""
