//! Layers: trees, tar archives, directories, and the ways between them.
