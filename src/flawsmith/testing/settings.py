"""What every plug-in's settings must do."""

from __future__ import annotations

from flawsmith.config import Settings


def settings_hold(owner: str, plugin: type[Settings]) -> None:
    """Check that every field has a line of help and a default, and that they are frozen, strict and survive JSON."""
    settings = plugin()
    for name, field in plugin.model_fields.items():
        assert field.description, f"{owner}.Settings.{name} has no line of help under it"
        assert "\n" not in field.description, f"{owner}.Settings.{name}: its help is more than one line"
    assert plugin.model_validate_json(settings.model_dump_json()) == settings
    assert plugin.model_config.get("frozen"), f"{owner}.Settings is not frozen"
    assert plugin.model_config.get("extra") == "forbid", f"{owner}.Settings takes unknown keys"
