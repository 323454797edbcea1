//! The glob patterns of Dockerfiles and .dockerignore files.
