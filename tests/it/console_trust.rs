//! *Trust*: what was signed, who vouched for it, when it was checked, and whether it contains a checkpoint that somebody kept.
