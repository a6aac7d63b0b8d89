//! Namespaces as nodes and pods, packet builders and load, for privileged tests, the demo and the benches.
