//! What the tests share.

use std::collections::{BTreeMap, BTreeSet};

use formwork_graph::Network;
use formwork_oci::Platform;

use crate::{Allowed, Options};

/// What a build is asked for by somebody who asks for nothing.
pub(crate) fn options() -> Options {
    Options {
        target: None,
        build_args: BTreeMap::new(),
        labels: BTreeMap::new(),
        contexts: BTreeMap::new(),
        target_platform: Platform::host(),
        build_platform: Platform::host(),
        several_platforms: false,
        no_cache: false,
        no_cache_filter: BTreeSet::new(),
        all_stages: false,
        allowed: Allowed::default(),
        network: Network::Default,
    }
}
