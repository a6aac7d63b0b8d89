//! Controllers as plain functions: key and snapshot in, writes out.
