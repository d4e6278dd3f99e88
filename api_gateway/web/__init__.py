"""The web pages of the platform: the catalogue, one page per item, and nothing that needs a build step."""

from api_gateway.web.pages import mount_pages

__all__ = ["mount_pages"]
