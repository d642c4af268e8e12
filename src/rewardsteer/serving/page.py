"""The page at ``/``: the token inspector, live."""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from rewardsteer.reports.inspector import live_page
from rewardsteer.reports.page import policy_of
from rewardsteer.serving.service import Service


def add_page(app: FastAPI, service: Service, *, needs_key: bool) -> None:
    """The page, written once; it loads nothing and holds nothing but names of methods."""
    served = service.served
    html = live_page(
        served.methods if served.engine else [], default_method=served.defaults.method,
        needs_key=needs_key, goal=bool(served.goals),
    )
    # A page cannot say of itself who may frame it.
    policy = {"Content-Security-Policy": f"{policy_of(html)}; frame-ancestors 'none'"}

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        """The token inspector."""
        return HTMLResponse(html, headers=policy)
