"""Bottle, but for how an answer leaves: a route of ours returns a whole one, or what has to be waited for.

Owns who waits: the front's loop where the environment says so (front.halves.DEFER), else this thread. Bottle's own way
takes a finished answer apart into a response of its own and puts it together again, which cost as much as the routing
and the route; and it has no word for an answer that comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import bottle
from bottle import request, response

from front.halves import DEFER, REASONS, Response, is_bare

Said = Any
"""A Response, or what has `complete(client)` for one: a front.exchange.Exchange, a
front.administration.Errand, a front.labour.Labour."""


class Application(bottle.Bottle):
    """The routes, and Bottle's router and plugins. client: for those who wait here (a batching.blocking client).

    refuse: the answer to what no route takes, and to what failed before one could.
    """

    def __init__(self, client: Any, refuse: Callable[[bottle.HTTPError], Response]) -> None:
        super().__init__()
        self.uninstall(bottle.JSONPlugin)  # answers are bytes already
        self._client = client
        self._refuse = refuse

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """As any WSGI application, or by the loop's own way."""
        said = self._say(environ)
        carry = environ.get(DEFER)
        if carry is not None:
            carry(said)
            return ()
        answer: Response = said if isinstance(said, Response) else said.complete(self._client)
        headers = [header for header in answer.headers if header[0] != "Content-Length"]
        headers.append(("Content-Length", str(len(answer.body))))
        start_response(f"{answer.status} {REASONS.get(answer.status, 'Unknown')}", headers)
        return () if is_bare(environ["REQUEST_METHOD"], answer.status) else (answer.body,)

    __call__ = wsgi

    def _say(self, environ: dict[str, Any]) -> Said:
        path = environ["PATH_INFO"]
        if not path.isascii():
            environ["PATH_INFO"] = path.encode("latin-1").decode("utf-8", "replace")
        environ["bottle.app"] = self
        request.bind(environ)
        try:
            self.trigger_hook("before_request")
            route, parts = self.router.match(environ)
            if "label" in route.config:  # a model's: returns what is said here
                return route.call(**parts)
            response.bind()
            return self._as_said(route.call(**parts))
        except bottle.HTTPError as error:
            return self._refuse(error)
        except bottle.HTTPResponse as raised:
            return self._as_said(raised)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client hears of it
            return self._refuse(bottle.HTTPError(500, exception=error))
        finally:
            self.trigger_hook("after_request")

    def _as_said(self, said: Any) -> Said:
        """What a route returned that somebody added to ours, by Bottle's own rules."""
        if isinstance(said, Response) or hasattr(said, "complete"):
            return said
        body = b"".join(self._cast(said))
        return Response(response.status_code, response.headerlist, body)
