//! What `keys`, `values` and `items` of a map give: Python's views, which can be iterated but have no positions.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple};
use minijinja::{Error, Value};

use super::python_text::repr_of;

/// A view of a map.
#[derive(Debug)]
pub(super) struct DictView {
    name: &'static str,
    items: Vec<Value>,
}

impl DictView {
    /// The view that a method of a map gives: `keys`, `values` or `items`.
    pub(super) fn of(map: &Value, name: &'static str) -> Result<Value, Error> {
        let mut items = Vec::new();
        for key in map.try_iter()?.checked() {
            let key = key?;
            items.push(match name {
                "keys" => key,
                "values" => map.get_item(&key)?,
                _ => Value::from(Tuple::new(vec![key.clone(), map.get_item(&key)?])),
            });
        }
        Ok(Value::from_object(Self { name, items }))
    }
}

impl Object for DictView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = self
            .items
            .iter()
            .map(repr_of)
            .collect::<Result<Vec<_>, _>>();
        write!(
            f,
            "dict_{}([{}])",
            self.name,
            items.map_err(|_| fmt::Error)?.join(", ")
        )
    }
}
