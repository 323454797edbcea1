//! Images as lazy views; layouts, archives, names, export.
