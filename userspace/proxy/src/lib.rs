//! Watch to model to plan to kernel: the kube-proxy replacement.
