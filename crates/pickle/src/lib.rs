//! The data in a Python pickle, read without ever running what a pickle can run.
//!
//! A pickle is a program for a stack machine that may import and call anything. [`read_pickle`] executes those of its
//! instructions that build data and turns names, calls and references to elsewhere over to a [`Dialect`], which knows
//! what one kind of file spells with them. A dialect answers with values; nothing is imported or called, and what it does
//! not know is a [`PickleError`].
//!
//! This crate reads only memory, knows no tensor library and no other crate of twoview.
//!
//! # Example
//! ```
//! use twoview_pickle::{Dialect, Made, PickleError, Place, Value, Values, read_pickle};
//!
//! /// Lists, dictionaries, texts and numbers; no name is known.
//! struct Plain;
//!
//! impl<'a> Dialect<'a> for Plain {
//!     type Object = ();
//!     const RULE: &'static str = "only plain data are read";
//!     const REFUSED: &'static [u8] = b"Q\x81\x92";
//!
//!     fn import(&mut self, _module: &[u8], _name: &[u8]) -> Option<()> {
//!         None
//!     }
//!     fn call(&mut self, _: &Values<'a, ()>, _callee: Place, _arguments: &[Place]) -> Made<'a, ()> {
//!         Err("a call")
//!     }
//!     fn set_state(&mut self, _: &Values<'a, ()>, _object: Place, _state: Place) -> Result<Option<()>, &'static str> {
//!         Err("a state")
//!     }
//! }
//!
//! let (values, top) = read_pickle(b"\x80\x02](K\x03K\x07e.", Plain)?; // pickle.dumps([3, 7], 2)
//! assert!(matches!(&values[top], Value::List(items) if values.naturals(items) == Some(vec![3, 7])));
//!
//! let error = read_pickle(b"cos\nsystem\n(S'echo'\ntR.", Plain).expect_err("refused");
//! assert!(matches!(error, PickleError::Forbidden { name, .. } if name == "os.system"));
//! # Ok::<(), PickleError>(())
//! ```

mod dialect;
mod pickle_error;
mod read_pickle;
mod value;

pub use dialect::{Dialect, Made};
pub use pickle_error::PickleError;
pub use read_pickle::{MAX_INSTRUCTIONS, read_pickle};
pub use value::{Place, Value, Values};
