"""``df.llm`` and ``series.llm`` on Dask's collections. Importing this registers them."""

from llm_magics.dataframes.dask.accessor import DaskFrameAccessor, DaskSeriesAccessor

__all__ = ["DaskFrameAccessor", "DaskSeriesAccessor"]
