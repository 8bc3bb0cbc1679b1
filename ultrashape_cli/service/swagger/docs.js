SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  // A link to another site's validator is the default.
  validatorUrl: null,
  syntaxHighlight: false,
});
