"""For the API pages: the constructor of an Equinox module that has no `__init__` of its own, read off its fields."""

import griffe


class FieldsAsArguments(griffe.Extension):
    """Gives such a class an `__init__`, and hides its fields, which the docstring describes as arguments."""

    def on_class(self, *, cls: griffe.Class, **_) -> None:
        """Called by griffe for each class, with its members."""
        fields = [m for m in cls.members.values() if m.is_attribute and m.annotation is not None and not _is_fixed(m)]
        if fields and "__init__" not in cls.members and not cls.name.startswith("Abstract"):
            arguments = [_argument("self")]
            arguments += [_argument(field.name, field.annotation, _default(field)) for field in fields]
            init = griffe.Function("__init__", parameters=griffe.Parameters(*arguments), parent=cls, returns="None")
            cls.set_member("__init__", init)
        if not cls.name.startswith("Abstract"):
            for field in fields:
                if not field.has_docstring:
                    cls.del_member(field.name)


def _is_fixed(member: griffe.Attribute) -> bool:
    shared = "class-attribute" in member.labels and "instance-attribute" not in member.labels
    return shared or "property" in member.labels or "ClassVar" in str(member.annotation)


def _argument(name: str, annotation=None, default=None) -> griffe.Parameter:
    return griffe.Parameter(
        name, annotation=annotation, default=default, kind=griffe.ParameterKind.positional_or_keyword
    )


def _default(field: griffe.Attribute):
    value = field.value
    if isinstance(value, griffe.ExprCall) and str(value.function).endswith("field"):
        named = {arg.name: arg.value for arg in value.arguments if isinstance(arg, griffe.ExprKeyword)}
        return named.get("default")
    return value
