// Shows /openapi.json with Swagger UI. Owns the key (kept for this tab, as the console does) and what is said when the
// document cannot be had; all else is Swagger UI's.
"use strict";

const DOCUMENT = "/openapi.json";
const MANY_PATHS = 150; // beyond, the list of operations takes seconds to draw, so it is drawn tag by tag

const form = document.getElementById("ask");
const input = document.getElementById("key");
const told = document.getElementById("told");

function authorized(headers) {
  const key = sessionStorage.getItem("key");
  return key && !headers.Authorization ? { ...headers, Authorization: `Bearer ${key}` } : headers;
}

function ask(text) {
  told.textContent = text;
  form.hidden = false;
  input.focus();
}

function show(spec) {
  form.hidden = true;
  told.textContent = "";
  SwaggerUIBundle({
    spec,
    dom_id: "#documentation",
    docExpansion: Object.keys(spec.paths).length > MANY_PATHS ? "none" : "list",
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    filter: true,
    tryItOutEnabled: true,
    validatorUrl: null,
    requestInterceptor(request) {
      request.headers = authorized(request.headers);
      return request;
    },
  });
}

async function load() {
  const response = await fetch(DOCUMENT, { headers: authorized({}) });
  if (response.ok) {
    show(await response.json());
  } else if (response.status === 401 || response.status === 403) {
    const wrong = sessionStorage.getItem("key") !== null;
    sessionStorage.removeItem("key");
    ask(wrong ? "This key does not open the documentation." : "This server asks for a key.");
  } else {
    told.textContent = `The server answered ${response.status}.`;
  }
}

function tryLoading() {
  load().catch(() => {
    told.textContent = "The server cannot be reached.";
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", input.value.trim());
  input.value = "";
  tryLoading();
});
tryLoading();
