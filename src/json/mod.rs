//! Our types as JSON: what a record looks like on disk.
//!
//! Of our own making, since serde with serde_json would be a seventh of the whole library.

mod text;

pub(crate) use text::quoted;

/// The error says what is wrong, and where.
pub(crate) type Parsed<T> = Result<T, String>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Value {
    #[default]
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    String(String),
    Array(Vec<Value>),
    Object(Object),
}

pub(crate) type Object = Members<Value>;

impl Object {
    /// Adds a member, or replaces the one that has this name.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some((_, present)) => *present = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

impl Value {
    pub(crate) fn as_object(&self) -> Parsed<&Object> {
        if let Self::Object(object) = self { Ok(object) } else { Err("not an object".to_owned()) }
    }

    fn as_array(&self) -> Parsed<&[Self]> {
        if let Self::Array(array) = self { Ok(array) } else { Err("not an array".to_owned()) }
    }

    /// Adds to an object, and to the objects in it, what another one has besides.
    pub(crate) fn add_missing(&mut self, source: &Self) {
        let (Self::Object(target), Self::Object(source)) = (self, source) else { return };
        for (name, value) in &source.0 {
            match target.0.iter_mut().find(|(own, _)| own == name) {
                Some((_, present)) => present.add_missing(value),
                None => target.0.push((name.clone(), value.clone())),
            }
        }
    }
}

pub(crate) trait Json: Sized {
    fn to_json(&self) -> Value;

    fn from_json(value: &Value) -> Parsed<Self>;

    /// What it means that an object has no such member; None: that it is not one of ours.
    fn if_missing() -> Option<Self> {
        None
    }
}

/// `json_object!(Type { member, member or_default })`, for a struct: a member of the object for each field. One with
/// `or_default` may be missing, as those may that are an `Option`.
macro_rules! json_object {
    ($type:ident { $($field:ident $($or_default:ident)?),* $(,)? }) => {
        impl $crate::json::Json for $type {
            #[inline(never)]
            fn to_json(&self) -> $crate::json::Value {
                let mut object = $crate::json::Object::default();
                $(object.set(stringify!($field), $crate::json::Json::to_json(&self.$field));)*
                $crate::json::Value::Object(object)
            }

            #[inline(never)]
            fn from_json(value: &$crate::json::Value) -> $crate::json::Parsed<Self> {
                let object = value.as_object()?;
                Ok(Self { $($field: $crate::json::json_object!(@ object $field $($or_default)?)),* })
            }
        }
    };
    (@ $object:ident $field:ident) => { $crate::json::member($object, stringify!($field))? };
    (@ $object:ident $field:ident or_default) => {
        $crate::json::member::<Option<_>>($object, stringify!($field))?.unwrap_or_default()
    };
}
pub(crate) use json_object;

#[inline(never)]
pub(crate) fn member<T: Json>(object: &Object, name: &str) -> Parsed<T> {
    let found = match object.get(name) {
        Some(value) => T::from_json(value),
        None => T::if_missing().ok_or_else(|| "is missing".to_owned()),
    };
    found.map_err(|why| within(name, &why))
}

#[cold]
#[inline(never)]
fn within(name: &str, why: &str) -> String {
    format!("{name}: {why}")
}

macro_rules! json_number {
    ($($type:ty)*) => { $(
        impl Json for $type {
            fn to_json(&self) -> Value {
                Value::Number(self.to_string())
            }

            fn from_json(value: &Value) -> Parsed<Self> {
                let number = if let Value::Number(number) = value { number.parse().ok() } else { None };
                number.ok_or_else(|| format!("not a number of the type {}", stringify!($type)))
            }
        }
    )* };
}
json_number!(u8 u16 u32 u64 i32);

impl Json for bool {
    fn to_json(&self) -> Value {
        Value::Bool(*self)
    }

    fn from_json(value: &Value) -> Parsed<Self> {
        if let Value::Bool(value) = value { Ok(*value) } else { Err("neither true nor false".to_owned()) }
    }
}

impl Json for String {
    fn to_json(&self) -> Value {
        Value::String(self.clone())
    }

    fn from_json(value: &Value) -> Parsed<Self> {
        if let Value::String(string) = value { Ok(string.clone()) } else { Err("not a string".to_owned()) }
    }
}

impl<T: Json> Json for Option<T> {
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, Json::to_json)
    }

    fn from_json(value: &Value) -> Parsed<Self> {
        if *value == Value::Null { Ok(None) } else { T::from_json(value).map(Some) }
    }

    fn if_missing() -> Option<Self> {
        Some(None)
    }
}

impl<T: Json> Json for Vec<T> {
    fn to_json(&self) -> Value {
        Value::Array(self.iter().map(Json::to_json).collect())
    }

    fn from_json(value: &Value) -> Parsed<Self> {
        value.as_array()?.iter().map(Json::from_json).collect()
    }
}

impl Json for [u8; 6] {
    fn to_json(&self) -> Value {
        self.to_vec().to_json()
    }

    fn from_json(value: &Value) -> Parsed<Self> {
        Vec::from_json(value)?.try_into().map_err(|_| "not six bytes".to_owned())
    }
}

impl Json for (String, String) {
    fn to_json(&self) -> Value {
        Value::Array(vec![self.0.to_json(), self.1.to_json()])
    }

    fn from_json(value: &Value) -> Parsed<Self> {
        let [first, second] = Vec::from_json(value)?.try_into().map_err(|_| "not a pair")?;
        Ok((first, second))
    }
}

/// An object whose members are not known beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Members<T>(pub Vec<(String, T)>);

impl<T> Members<T> {
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }
}

impl<T: Json> Json for Members<T> {
    fn to_json(&self) -> Value {
        Value::Object(Members(self.0.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()))
    }

    fn from_json(value: &Value) -> Parsed<Self> {
        let read = |(name, value): &(String, _)| Ok((name.clone(), T::from_json(value).map_err(|why| within(name, &why))?));
        value.as_object()?.0.iter().map(read).collect::<Parsed<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests;
