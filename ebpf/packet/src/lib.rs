//! Headers, checksums, NAT rewriting and backend choice: one logic for the kernel programs and for the host.
