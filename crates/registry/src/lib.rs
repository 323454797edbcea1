//! Registry client: authentication, resolve, pull, push.
