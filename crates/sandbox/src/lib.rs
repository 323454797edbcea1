//! Runs one process in namespaces, with mounts and limits.
