"""The studio: a page for people, in Gradio, that knows the farm by its public HTTP API alone."""
