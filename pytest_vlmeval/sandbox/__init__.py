"""The only importer of ms-vlmeval: helper processes in an environment of their own."""
