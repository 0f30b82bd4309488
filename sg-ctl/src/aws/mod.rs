//! What `aws ec2 describe-security-groups` and its like print, as policies of sg.
//!
//! Nothing is lost silently: whatever has no place in a policy is told, and told apart by whether
//! it changes what is allowed. Nothing here asks AWS anything.

mod answers;
mod convert;
mod spelling;

pub use answers::{AnswerError, Answers};
pub use convert::{Fate, ImportError, Imported, Note};
