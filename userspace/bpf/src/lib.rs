//! Loads, pins, attaches and reads back the BPF programs and tables.
