"""Pages of reports: templates of a package, built upon those of this one."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def render(package: str, template: str, /, **values: object) -> str:
    """Fill in a template.

    Args:
        package: whose `templates` folder is looked into before our own.
        template: its name, such as `stage4.html.j2`.
        values: what it shows; all are escaped, as a completion is whatever a policy wrote.

    Raises:
        jinja2.UndefinedError: the template shows something that is not among the values.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("core_rl")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)
