//! Our words: frontend, backend, service, node. No Kubernetes types, no input or output.
