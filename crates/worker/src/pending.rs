//! TEMPORARY stand-ins.
use formwork_fs::RootDir;
use formwork_layer::{LayerError, Tree};
#[derive(Default)]
pub(crate) struct MaterializeOptions { pub(crate) threads: usize }
pub(crate) fn materialize(_: &Tree, _: &RootDir, _: &MaterializeOptions) -> Result<(), LayerError> { Ok(()) }
