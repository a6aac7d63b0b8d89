//! List, watch and write against an API server, over HTTPS or wired straight into a router.
