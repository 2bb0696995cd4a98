"""What an importer is told besides the file; it lives where `jobs.manifests` may import it."""

from jobs.import_options import ImportOptions

__all__ = ["ImportOptions"]
