"""The editing methods, one folder a paper."""
