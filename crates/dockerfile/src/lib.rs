//! Dockerfile and .dockerignore: lexer, parser, expansion.
