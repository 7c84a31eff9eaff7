"""The annotation page and its server. Needs the extra ``server``."""
