"""What is put into a frozen network for the length of a call."""
