//! Scripts, and what bash makes of them.
