"""The annotation page: people compare completions in a browser.

    comparisons ──import──> tasks ──claim──> annotator ──label──> events ──> PreferenceStore
                                                                    └──> quality, export

Several server processes may share one database. FastAPI and uvicorn come with the extra
`annotate` and are imported only where the application is built.
"""

__all__: list[str] = []
