//! The embedded engine: a checksummed log with group commit under a persistent tree.
