"""The interactive viewer and the web app around it (viser): look, measure, ask, take along.

Every browser has a `session` of its own, whose parts are one module each: the cloud with its level of detail
(`pyramid`, `cloud`), cameras, panels for looks, measuring, export and questions. `serving` starts the server,
`work` is the one queue to the model.
"""
