"""From the tables to the files that clouds, Kubernetes and monitoring read."""
