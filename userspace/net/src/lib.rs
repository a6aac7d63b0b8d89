//! Links, addresses, namespaces, cgroups and mounts of the host.
