//! The HTTP face of the storage: the Kubernetes API.
